"""Where people prove who they are: with a password of ours, at a provider of their tenant's own, or in Amazon Cognito.

`port` is what all of them promise; `built_in`, `oidc` and `cognito` keep it. What follows from it, the seat that
somebody gets and the session that begins, is the same for all and no provider's business.
"""
