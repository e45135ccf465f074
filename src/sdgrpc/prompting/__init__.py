"""What a prompt can hold besides words: tags that name LoRAs, and marks that are refused. No torch here."""
