# An example: two allocations, each with a listend that holds the port for its workers.
# docs/scaling.md explains how health checks, draining and updates fit together. listend must be
# installed on the machines.
#
# This job was never run. Tests check its syntax and the configuration in it, and that its times agree; try it
# with `nomad job validate` and `nomad job plan` first.

job "app" {
  group "app" {
    count = 2

    # The next allocation is healthy before an old one stops.
    update {
      max_parallel     = 1
      canary           = 1
      auto_promote     = true
      auto_revert      = true
      min_healthy_time = "10s"
    }

    network {
      port "web" {}
    }

    service {
      name     = "app"
      port     = "web"
      provider = "nomad"

      # Not `tcp`, which always succeeds, because listend holds the port even without a worker.
      check {
        type     = "http"
        path     = "/"
        interval = "5s"
        timeout  = "2s"
      }
    }

    # The time between leaving service discovery and the stop.
    shutdown_delay = "10s"

    task "listend" {
      driver = "exec"
      # Longer than the longest stop_timeout.
      kill_timeout = "30s"
      kill_signal  = "SIGTERM"

      config {
        command = "/usr/bin/listend"
        args = [
          "run", "-c", "${NOMAD_TASK_DIR}/listend.yaml",
          "--control", "${NOMAD_TASK_DIR}/control.sock",
        ]
      }

      template {
        destination = "${NOMAD_TASK_DIR}/listend.yaml"
        # Changes to the file are applied without closing a socket.
        change_mode   = "signal"
        change_signal = "SIGHUP"
        data          = <<-YAML
          listeners:
            web: 0.0.0.0:{{ env "NOMAD_PORT_web" }}
          workers:
            app:
              command: ["{listend}", hello-worker]
              listeners: [web]
              instances: 2
              stop_timeout: 20s
        YAML
      }
    }
  }
}
