"""What a measurement is shown as: figures, plots, one self-contained page, a JSON document."""
