# Runs a Shiny app on a Unix socket that its owner alone may open.
# Arguments: the app's folder or file, and the socket.
arguments <- commandArgs(trailingOnly = TRUE)
socket <- structure(arguments[[2]], mask = strtoi("177", base = 8L))
shiny::runApp(arguments[[1]], port = socket, launch.browser = FALSE)
