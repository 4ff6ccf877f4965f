"use strict";
tabs();
