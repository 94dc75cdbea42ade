"""`memtherm report`: one module for each kind of report, and what they share."""
