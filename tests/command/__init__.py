"""Tests of the command: settings, logins, comparer, documents."""
