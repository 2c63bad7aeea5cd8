"""One forward pass, captured exactly: `forward` runs it, `hooks` read it, `record` holds it, `edits` alter it."""
