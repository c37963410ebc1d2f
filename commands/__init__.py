"""What people call, `protomask …`: each reads what the stages have made, or DVC's records."""
