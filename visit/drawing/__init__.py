"""The flow graph as a picture: `layout` says what is shown and places every pill, `edges` routes every band, `style`
colours them, `svg` writes them, `draw` composes (all of it as `records`); `pair` sets two graphs side by side; flow.js
and flow.css make it live.
"""
