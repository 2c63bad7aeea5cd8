"""The flow graph as a picture: `detail` says what is shown, `layout` places every pill, `edges` routes every band,
`style` colours them, `svg` writes them, `draw` composes; `pair` sets two graphs side by side; flow.js and flow.css
make it live.
"""
