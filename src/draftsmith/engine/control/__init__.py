"""How much each round drafts: fixed numbers, or what pays by measured costs and chances."""
