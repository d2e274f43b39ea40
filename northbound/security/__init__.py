"""Who may ask what: tokens, sessions, scopes, limits, pseudonyms and TLS. ``northbound.guard`` puts them in force."""
