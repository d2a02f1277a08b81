# Serve a member's Shiny app: Rscript run_shiny.R SOCKET FOLDER.
# It runs in the app's box and knows no secret; front.py stands before it.
words <- commandArgs(trailingOnly = TRUE)
options(shiny.maxRequestSize = 1024^3, shiny.launch.browser = FALSE)
# 077 in octal: nobody but this account connects.
place <- structure(words[[1]], mask = strtoi("77", base = 8))
shiny::runApp(words[[2]], port = place, launch.browser = FALSE)
