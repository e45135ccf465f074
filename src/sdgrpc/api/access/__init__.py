"""Who may connect and call: tokens, certificates, sockets, and what a connection may take."""
