"""One module per figure or table of a paper: `compute(...)` gives numbers, `draw(result)` a figure."""
