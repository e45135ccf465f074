"""The newer methods of PEFT: their formulas, and the table of them."""
