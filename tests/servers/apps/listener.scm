;; Guile's web server on an inherited descriptor: tells its pid.
(use-modules (web server))

(define listener (fdopen (string->number (cadr (command-line))) "r+0"))
(define (handle request body)
  (values '((content-type . (text/plain)) (connection . (close)))
          (format #f "pid ~a\n" (getpid))))
(run-server handle 'http `(#:socket ,listener))
