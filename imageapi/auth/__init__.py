"""Who may: tokens, the policy table, the decision."""
