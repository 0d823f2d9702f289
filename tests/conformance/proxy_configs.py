"""Configurations of proxies in front of a server, as short as their manuals have them; everything is on loopback."""

from __future__ import annotations

#: Its temporary files lie in a folder of the user's own; a connection that ends after 1000 requests would be no fault.
NGINX = """
user {user};
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr notice;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 100m;
    keepalive_requests 1000000;
    upstream rest {{ server {server}; keepalive 4; }}
    upstream grpc {{ server {server}; keepalive 4; }}
    server {{
        listen {rest};
        location / {{
            proxy_pass http://rest;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
    server {{
        listen {grpc} http2;
        location / {{ grpc_pass grpc://grpc; }}
    }}
}}
"""

#: The first address speaks HTTP/1.1 to clients and HTTP/2 to the server, the second HTTP/2 on both sides.
HAPROXY = """
global
    maxconn 100
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend rest
    bind {rest}
    default_backend headrace
frontend grpc
    bind {grpc} proto h2
    default_backend headrace
backend headrace
    option httpchk GET /v2/health/ready
    server one {server} proto h2
"""

ENVOY = """
static_resources:
  listeners:
  - name: both
    address: {{socket_address: {{address: 127.0.0.1, port_value: {rest_port}}}}}
    filter_chains: &chains
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: headrace
          codec_type: AUTO
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: "/"}}, route: {{cluster: headrace, timeout: 30s}}}}]
  - name: grpc
    address: {{socket_address: {{address: 127.0.0.1, port_value: {grpc_port}}}}}
    filter_chains: *chains
  clusters:
  - name: headrace
    type: STATIC
    connect_timeout: 5s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: headrace
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: {server_host}, port_value: {server_port}}}}}}}
    health_checks:
    - timeout: 2s
      interval: 60s
      healthy_threshold: 1
      unhealthy_threshold: 1
      grpc_health_check: {{}}
"""
