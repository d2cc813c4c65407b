"""Tests of block devices: real loop devices where the machine lets us make them."""
