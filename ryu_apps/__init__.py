"""The OpenFlow process: speaks OpenFlow 1.3 to the switches and decides nothing."""
