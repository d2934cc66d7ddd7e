package caddyscope_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/caddy-scope/caddy-scope"

// mayImport holds the arrows of the design: no arrow runs up, and no two
// neighbours import each other.
var mayImport = map[string][]string{
	"oauth":       {},
	"dpop":        {},
	"ratelimit":   {},
	"slabcache":   {},
	"issuer":      {"oauth", "dpop", "ratelimit"},
	"validator":   {"oauth", "dpop", "ratelimit", "slabcache"},
	"authserver":  {"oauth", "validator"},
	"identity":    {"oauth"},
	"httpgate":    {"oauth", "validator", "authserver"},
	"migrations":  {},
	"login":       {"oauth", "issuer"},
	"postgres":    {"oauth", "dpop", "ratelimit", "issuer", "validator", "migrations", "slabcache"},
	"openapi":     {"oauth"},
	"caddymodule": {"oauth", "dpop", "ratelimit", "issuer", "login", "openapi", "validator", "identity", "authserver", "postgres", "migrations"},
}

// TestPackagesImportDownwardsOnly
func TestPackagesImportDownwardsOnly(t *testing.T) {
	for _, pkg := range listPackages(t) {
		allowed, held := mayImport[pkg.name]
		if !held {
			continue
		}
		for _, imported := range pkg.Imports {
			name, ours := strings.CutPrefix(imported, module+"/")
			inside := strings.HasPrefix(name, pkg.name+"/") // its own parts
			if ours && !inside && !slices.Contains(allowed, name) {
				t.Errorf("%s imports %s", pkg.name, name)
			}
			if pkg.name == "oauth" && strings.Contains(imported, ".") {
				t.Errorf("oauth imports %s, which is not in the standard library", imported)
			}
		}
	}
}

// TestOnlyTheCaddySideImportsCaddy: issuer and validator know neither Caddy nor
// pgx, not even through something they import.
func TestOnlyTheCaddySideImportsCaddy(t *testing.T) {
	for _, pkg := range listPackages(t) {
		for _, imported := range pkg.Deps {
			if strings.HasPrefix(imported, "github.com/caddyserver/caddy/") && !slices.Contains([]string{"caddymodule", "cmd/caddy", ""}, pkg.name) {
				t.Errorf("%s needs %s", pkg.ImportPath, imported)
			}
			if strings.HasPrefix(imported, "github.com/jackc/pgx/") && slices.Contains([]string{"oauth", "ratelimit", "issuer", "login", "validator", "authserver", "identity", "httpgate"}, pkg.name) {
				t.Errorf("%s needs %s", pkg.ImportPath, imported)
			}
		}
	}
}

type goPackage struct {
	ImportPath    string
	Imports, Deps []string
	name          string // without the module's path
}

// listPackages lists the packages of this module, without their tests.
func listPackages(t *testing.T) []goPackage {
	t.Helper()
	packages := []string{".", "./cmd/caddy"}
	for name := range mayImport {
		packages = append(packages, "./"+name)
	}
	out, err := exec.Command("go", append([]string{"list", "-e", "-json=ImportPath,Imports,Deps"}, packages...)...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var listed []goPackage
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var pkg goPackage
		if err := decoder.Decode(&pkg); errors.Is(err, io.EOF) {
			return listed
		} else if err != nil {
			t.Fatal(err)
		}
		pkg.name = strings.TrimPrefix(strings.TrimPrefix(pkg.ImportPath, module), "/")
		listed = append(listed, pkg)
	}
}
