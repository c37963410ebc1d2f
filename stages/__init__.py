"""One file per stage: reads its parameters and inputs, calls the library, writes its output."""
