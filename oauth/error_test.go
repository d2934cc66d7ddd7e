package oauth_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Descriptions of errors are of the characters that they may be of: no `"`, no
// `\`, and ASCII. RFC 6749 sections 4.1.2.1 and 5.2, RFC 6750 section 3.
func TestDescriptionsOfErrorsAreOfTheCharactersAllowed(t *testing.T) {
	t.Parallel()
	found := 0
	check := func(files *token.FileSet, e ast.Expr) {
		text, ok := e.(*ast.BasicLit)
		if !ok || text.Kind != token.STRING {
			return
		}
		description, err := strconv.Unquote(text.Value)
		if err != nil {
			t.Error(err)
		}
		found++
		for _, c := range description {
			if c < ' ' || c > '~' || c == '"' || c == '\\' {
				t.Errorf("%s: %q holds %q", files.Position(e.Pos()), description, c)
			}
		}
	}
	for _, folder := range []string{".", "../issuer", "../validator", "../dpop"} {
		err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			files := token.NewFileSet()
			file, err := parser.ParseFile(files, path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.KeyValueExpr:
					if key, ok := n.Key.(*ast.Ident); ok && key.Name == "Description" {
						check(files, n.Value)
					}
				case *ast.CallExpr: // oauth.InvalidGrant("…") and the like
					if f, ok := n.Fun.(*ast.SelectorExpr); ok && len(n.Args) == 1 {
						if from, ok := f.X.(*ast.Ident); ok && from.Name == "oauth" {
							check(files, n.Args[0])
						}
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found < 50 {
		t.Errorf("found %d descriptions", found)
	}
}
