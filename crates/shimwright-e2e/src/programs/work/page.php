<h1>PHP <?= implode(".", array_slice(explode(".", PHP_VERSION), 0, 2)) ?></h1>
<?php
$text = file_get_contents("/work/text.txt");
$lines = preg_split("/\n/", $text, -1, PREG_SPLIT_NO_EMPTY);
foreach ($lines as $line) {
    echo "<li>", htmlspecialchars($line), "</li>\n";
}
file_put_contents("/work/lines.txt", count($lines));
echo json_encode(["lines" => count($lines), "sha1" => sha1($text)]), "\n";
