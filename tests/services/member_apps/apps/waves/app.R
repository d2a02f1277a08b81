# A member's Shiny app; queries of its page serve the contract.
library(shiny)

page <- fluidPage(
  titlePanel("Waves"),
  textOutput("who"),
  sliderInput("n", "Periods", min = 1, max = 9, value = 2),
  plotOutput("plot")
)

ui <- function(req) {
  query <- parseQueryString(req$QUERY_STRING)
  if (!is.null(query$upload)) {
    got <- 0
    repeat {
      piece <- req$rook.input$read(1048576L)
      if (length(piece) == 0) break
      got <- got + length(piece)
    }
    return(httpResponse(200, "text/plain", sprintf("%d bytes", got)))
  }
  if (!is.null(query$download))
    # Said to be encoded already, it is not compressed: all of it has to travel.
    return(httpResponse(200, "application/octet-stream", raw(151 * 1048576),
      headers = list("Content-Encoding" = "identity")))
  if (!is.null(query$whoami))
    return(httpResponse(200, "text/plain", paste(req$HTTP_X_LABHUB_USER,
      req$HTTP_SHINY_SERVER_CREDENTIALS, paste(ls(req), collapse = " ")),
      headers = list("Set-Cookie" = "seen=1; Path=/")))
  if (req$REQUEST_METHOD == "GET") page
}
attr(ui, "http_methods_supported") <- c("GET", "POST")

server <- function(input, output, session) {
  output$who <- renderText(paste(session$user, "looks at", input$n, "periods"))
  output$plot <- renderPlot({
    x <- seq(0, 1, length.out = 500)
    plot(x, sin(2 * pi * input$n * x), type = "l", col = "#0b7285", lwd = 3,
         xlab = "time", ylab = "amplitude")
  })
}

shinyApp(ui, server)
