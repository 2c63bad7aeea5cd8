"""Numbers in sentences: a graph (`flow`), a head (`memory`), two runs (`comparison`). Pieces of text with node ids."""
