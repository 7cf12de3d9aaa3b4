"""The paper's figures and tables of the analysis: models, measurements, tables, pictures."""
