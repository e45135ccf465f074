"""The contract, told to tools that ask the server for it."""
