"""From finished trials to the paper's table: statistics, findings, HTML. Reads run directories, never trains."""
