package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// startNginx starts Debian's nginx, and the service that answers its
// auth_request if the scenario has one.
func (p *proxy) startNginx() error {
	authRequest, authLocation := "", ""
	if p.scenario.authRequest {
		service, err := p.startJWTService()
		if err != nil {
			return err
		}
		authRequest = "auth_request /verify; auth_request_set $user $upstream_http_x_user_id; proxy_set_header X-User-Id $user;"
		authLocation = fmt.Sprintf(`upstream verifier { server %s; keepalive 1024; }`, service)
	}
	dir := filepath.Join(p.scene.dir, p.scenario.name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// The access log is off, as it is in the Caddy scenarios.
	config := fmt.Sprintf(`
daemon off;
worker_processes auto;
pid %[1]s/pid;
error_log stderr error;
events { worker_connections 4096; }
http {
	access_log off;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	upstream api { server %[2]s; keepalive 1024; }
	%[3]s
	server {
		listen %[4]s;
		keepalive_requests 100000000;
		proxy_http_version 1.1;
		proxy_set_header Connection "";
		proxy_set_header X-Forwarded-For $remote_addr;
		location / { %[5]s proxy_pass http://api; }
		location = /verify { internal; proxy_pass_request_body off; proxy_set_header Content-Length ""; proxy_set_header Connection ""; proxy_pass http://%[6]s; }
	}
}
`, dir, p.scene.address, authLocation, p.address, authRequest, map[bool]string{true: "verifier", false: "api"}[p.scenario.authRequest])
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return err
	}
	one, err := start("nginx", nil, "-c", file, "-e", "stderr")
	if err != nil {
		return fmt.Errorf("start nginx (Debian package nginx-light): %w", err)
	}
	p.running = append(p.running, one)
	return nil
}
