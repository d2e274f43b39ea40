"""What operators talk to: the REST API, its server and the ``tidegate`` command."""
