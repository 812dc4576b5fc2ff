"""The HTTP and WebSocket service, `affekt serve`: the same rows as in Python and on the command line.

`app` builds the application from the parts; `run` binds it to a port. A request passes `guard` (Host, Origin, API key),
`admission` (the bounded queue), `uploads` (the multipart body) and `engine` (the recognizer), in this order.
"""
