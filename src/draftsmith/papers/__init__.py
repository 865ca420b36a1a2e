"""The two source papers, reproduced: what they print beside what we compute and measure."""
