"""Tests on several real processes; `launch` starts them, for these and for the tests of other stacks."""
