//! Boundary tests: the real binary and the shape of the house.
