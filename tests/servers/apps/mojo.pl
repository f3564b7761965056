# A Mojolicious application: tells its pid, and closes.
use Mojolicious::Lite -signatures;
app->log->level('fatal');
get '/' => sub ($c) {
    $c->res->headers->connection('close');
    $c->render(text => "pid $$\n");
};
app->start;
