"""Policy files and scheme lines ↔ values.  No effect is possible from here."""
