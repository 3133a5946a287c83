"""Checks of tool calls: that each fits the tools of its row, and has a result where one belongs."""
