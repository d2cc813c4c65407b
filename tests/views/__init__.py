"""Tests of the views. ``histories`` makes logs of random but possible histories, ``oracle`` says what views must show."""
