"""The parts of the driver."""
