"""Tasks whose pictures have a strength each, drawn as jobs of one picture."""
