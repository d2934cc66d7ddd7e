package main

import (
	"encoding/base64"
	"net/http"
	"os"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jwt"
)

func init() {
	caddy.RegisterModule(new(verifyEach))
	httpcaddyfile.RegisterHandlerDirective("verify_each", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		v := new(verifyEach)
		return v, v.UnmarshalCaddyfile(h.Dispenser)
	})
}

// verifyEach is what the gate is compared with: it verifies the signature, and
// with Read asks for the session, again for every request.
type verifyEach struct {
	Read bool `json:"read,omitempty"`

	key  any
	pool *pgxpool.Pool
}

func (*verifyEach) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.verify_each", New: func() caddy.Module { return new(verifyEach) }}
}

// UnmarshalCaddyfile reads `verify_each [read]`.
func (v *verifyEach) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	for d.Next() {
		for d.NextArg() {
			if v.Read = d.Val() == "read"; !v.Read {
				return d.ArgErr()
			}
		}
	}
	return nil
}

func (v *verifyEach) Provision(ctx caddy.Context) error {
	pem, err := base64.StdEncoding.DecodeString(os.Getenv("SIGNING_KEY"))
	if err != nil {
		return err
	}
	private, err := jwk.ParseKey(pem, jwk.WithPEM(true))
	if err != nil {
		return err
	}
	if v.key, err = private.PublicKey(); err != nil || !v.Read {
		return err
	}
	v.pool, err = pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	return err
}

func (v *verifyEach) Cleanup() error {
	if v.pool != nil {
		v.pool.Close()
	}
	return nil
}

func (v *verifyEach) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	issuer := "http://" + r.Host
	token, err := jwt.ParseString(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "),
		jwt.WithKey(jwa.ES256, v.key), jwt.WithIssuer(issuer), jwt.WithAudience(issuer))
	if err != nil {
		return caddyhttp.Error(http.StatusUnauthorized, err)
	}
	if v.Read {
		session, _ := token.Get("sid")
		var scopes []string
		err := v.pool.QueryRow(r.Context(), `SELECT scopes FROM gpt_sessions WHERE id = $1 AND revoked_at IS NULL AND expires_at > now()`, session).Scan(&scopes)
		if err != nil {
			return caddyhttp.Error(http.StatusUnauthorized, err)
		}
	}
	r.Header.Del("Authorization")
	r.Header.Set("X-User-Id", token.Subject())
	return next.ServeHTTP(w, r)
}

var (
	_ caddy.Provisioner           = (*verifyEach)(nil)
	_ caddy.CleanerUpper          = (*verifyEach)(nil)
	_ caddyhttp.MiddlewareHandler = (*verifyEach)(nil)
)
