"""Tests: a package, so that test folders may be named after the rooms they test without hiding them."""
