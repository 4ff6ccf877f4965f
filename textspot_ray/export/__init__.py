"""Tables in the formats of other tools; `formats` lists them and says how one is added."""
