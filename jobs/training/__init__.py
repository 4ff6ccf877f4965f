"""How the embedded bundle is made: data, rendering, networks, training, export."""
