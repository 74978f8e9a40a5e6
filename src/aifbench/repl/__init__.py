"""The interactive shell: one cmd2 application and one CommandSet per topic; no logic of its own."""
