"""OpenFlow 1.3 in bulk: many statistics entries or messages as arrays, without Ryu and without a socket."""
