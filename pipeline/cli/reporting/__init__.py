"""How a command ends: its summary on every channel (terminal, JSON, CI, JUnit, messages), and a crash."""
