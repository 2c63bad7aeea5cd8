"""What leaves VISIT as a file: tables (JSON, CSV, text), the flow graph's page, a study's report and its recording."""
